"""A tokenizer is what its file says, and has what training needs."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel
from tokenizers.processors import RobertaProcessing, TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import BertConfig, PreTrainedTokenizerFast

from model.lines import SourceError
from model.tokenizer import load_tokenizer

ENTRIES = "[PAD] [UNK] [CLS] [SEP] [MASK] the The king ##s cafe café".split()


def wordpiece(entries: list[str] = ENTRIES) -> Tokenizer:
    """Cased, with accents."""
    tokenizer = Tokenizer(WordPiece({entry: i for i, entry in enumerate(entries)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    ends = [(token, entries.index(token)) for token in ("[CLS]", "[SEP]") if token in entries]
    tokenizer.post_processor = TemplateProcessing(single=" $A ".join(token for token, _ in ends), special_tokens=ends)
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["the king and the queen"] * 4, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def test_a_file_alone_is_enough_and_is_followed_to_the_letter(tmp_path: Path) -> None:
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    BertConfig().save_pretrained(tmp_path)  # AutoTokenizer would lower-case now
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer("The café kings")["input_ids"] == [2, 6, 10, 7, 8, 3]
    assert (tokenizer.cls_token_id, tokenizer.mask_token_id) == (2, 4)
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 4]


def test_a_byte_level_file_alone_is_enough(tmp_path: Path) -> None:
    plain = byte_level()
    plain.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert [tokenizer.cls_token_id, tokenizer.pad_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id] == [
        0,
        1,
        2,
        3,
    ]
    assert tokenizer.mask_token_id == plain.token_to_id("<mask>")
    for text in ("the king", "a <mask> queen", ""):
        assert tokenizer(text)["input_ids"] == plain.encode(text).ids


def test_a_saved_tokenizer_comes_back(tmp_path: Path) -> None:
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path, special_ids=[7])
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 4, 7]
    tokenizer.save_pretrained(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert isinstance(again, PreTrainedTokenizerFast)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert sorted(again.all_special_ids) == sorted(tokenizer.all_special_ids)


def test_a_name_that_the_folder_gives_comes_before_the_usual_one(tmp_path: Path) -> None:
    wordpiece([*ENTRIES, "[BLANK]"]).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": "[BLANK]", "padding_side": "left"}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.mask_token_id == len(ENTRIES)
    assert tokenizer.padding_side == "right"  # position 0 is [CLS] in every row


def test_the_vocabulary_of_an_old_bert_is_enough(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(ENTRIES), encoding="utf-8")
    BertConfig().save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path)("the King")["input_ids"] == [2, 5, 7, 3]


def test_no_tokenizer_is_an_error(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(SourceError, match=r"no tokenizer\.json; save the tokenizer there with save_pretrained"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("missing", ["[PAD]", "[CLS]", "[SEP]", "[MASK]"])
def test_a_token_without_which_nothing_can_be_trained_is_named(missing: str, tmp_path: Path) -> None:
    tokenizer = wordpiece()
    tokenizer.post_processor = TemplateProcessing(single="$A")
    content = tokenizer.to_str().replace(missing, "other")
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    role = missing.strip("[]").lower()
    with pytest.raises(
        SourceError, match=rf"has no \{missing[:-1]}\] or <.*>; add such a token, or name one as {role}_token"
    ):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_does_not_frame_texts_is_refused(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    tokenizer.post_processor = TemplateProcessing(single="$A")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(SourceError, match=r"frames an empty text as \[\], not as \[CLS\] and \[SEP\], \[2, 3\]"):
        load_tokenizer(tmp_path)


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(wordpiece().to_str()[:200])
    with pytest.raises(SourceError, match=r"tokenizer\.json is damaged"):
        load_tokenizer(tmp_path)
