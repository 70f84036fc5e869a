"""New words are tokenised as a user's prompt will be, start as a known word and learn by truth."""

from __future__ import annotations

import pytest
import text_models
import torch
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.base import TokenSettings
from likeness.nodes.training.recipes.whole import TextualInversionRecipe
from likeness.nodes.training.text.encoders import TextEncoders
from likeness.nodes.training.text.host_clip import word_ids
from likeness.nodes.training.text.tokens import mentions, spread

EVERY = pytest.mark.parametrize("name", text_models.ENCODERS)
CAPTION = "photo of ohwx man, smiling"


def _text(clip, start_rows=None, trigger="ohwx", class_noun="man", kind=TextualInversionRecipe,
          **settings):
    recipe = kind(steps=10, tokens=TokenSettings(**settings))
    return TextEncoders(clip, recipe, trigger, class_noun, start_rows,
                        generator=torch.Generator().manual_seed(0))


def _encoded(text, caption, **kwargs):
    text.prepare()
    with torch.inference_mode(False), torch.enable_grad(), Scope() as scope:
        text.attach(scope)
        return text_models.flat(text.encode(caption, **kwargs))


def _same(found, wanted):
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-5, atol=1e-5)


@EVERY
@pytest.mark.parametrize("inference", [False, True], ids=["normal", "inference mode"])
def test_an_untrained_word_encodes_as_the_word_it_starts_from(name, inference, tmp_path):
    with torch.inference_mode(inference):
        clip = text_models.make_clip(name, tmp_path)
        wanted = text_models.stock_encode(clip, "photo of man man, smiling")
        text = _text(clip, vectors=1)
        assert tuple(text.tokens.rows) == text_models.ENCODERS[name]
        found = _encoded(text, CAPTION)
        assert found.requires_grad
        _same(found, wanted)


@EVERY
def test_a_caption_without_the_trigger_encodes_as_the_host_does(name, tmp_path):
    clip = text_models.make_clip(name, tmp_path)
    text = _text(clip)
    for caption in ("", "photo of a man"):
        found = _encoded(text, caption, with_trigger=False)
        assert not found.requires_grad
        _same(found, text_models.stock_encode(clip, caption))


@EVERY
def test_gradients_of_the_rows_agree_with_finite_differences(name, tmp_path):
    clip = text_models.make_clip(name, tmp_path)
    text = _text(clip, vectors=2)
    pull = None
    with torch.enable_grad(), Scope() as scope:
        text.attach(scope)

        def loss():
            nonlocal pull
            out = text_models.flat(text.encode(CAPTION))
            if pull is None:
                pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
            return (out * pull).double().mean()

        loss().backward()
        for rows in text.tokens.rows.values():
            wanted, values = rows.grad.norm().item(), []
            way = rows.grad / wanted
            for size in (2e-2, -4e-2, 2e-2):
                with torch.no_grad():
                    rows.add_(size * way)
                values.append(loss().item())
            found = (values[0] - values[1]) / 4e-2
            assert found == pytest.approx(wanted, rel=2e-3)
            assert wanted != 0


def test_several_vectors_stand_in_a_row(tmp_path):
    clip = text_models.make_clip("sd15", tmp_path)
    _same(_encoded(_text(clip, vectors=3), CAPTION),
          text_models.stock_encode(clip, "photo of man man man man, smiling"))


def test_every_mention_of_the_trigger_is_the_new_word(tmp_path):
    clip = text_models.make_clip("sdxl", tmp_path)
    _same(_encoded(_text(clip, vectors=1), "ohwx next to OHWX"),
          text_models.stock_encode(clip, "man next to man"))


def test_an_initial_word_of_several_tokens_fills_as_many_rows(tmp_path):
    clip = text_models.make_clip("sd15", tmp_path)
    text = _text(clip, vectors=2, initial_word="handsome man")
    _same(_encoded(text, CAPTION),
          text_models.stock_encode(clip, "photo of handsome man man, smiling"))


def test_more_tokens_than_rows_are_averaged_at_their_own_length():
    words = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    rows = spread(words, 2)
    assert rows[0].norm().item() == pytest.approx(words[:3].norm(dim=-1).mean().item(), rel=1e-5)
    assert torch.cosine_similarity(rows[0], words[:3].mean(dim=0), dim=0) > 0.9999
    assert rows.shape == (2, 64)


def test_an_initial_word_that_an_encoder_does_not_know_is_refused(tmp_path):
    clip = text_models.make_clip("flux", tmp_path)
    with pytest.raises(LikenessError, match="t5xxl does not know the word"):
        _text(clip, initial_word="\u7537")


def test_the_class_noun_is_the_initial_word_when_none_is_named(tmp_path):
    clip = text_models.make_clip("sd15", tmp_path)
    text = _text(clip, class_noun="woman", vectors=1)
    place, = word_ids(clip, text.tokens.encoders[0], "woman")
    assert torch.equal(text.tokens.rows["clip_l"][0].detach(),
                       text.tokens.encoders[0].table.weight[place].detach())


def test_a_caption_without_the_trigger_is_refused_by_name(tmp_path):
    text = _text(text_models.make_clip("sd15", tmp_path))
    with pytest.raises(LikenessError, match="`photo of a man` does not contain the trigger `ohwx`"):
        text.check_captions([CAPTION, "photo of a man"])
    with pytest.raises(LikenessError, match="photo of a man"):
        _encoded(text, "photo of a man")


def test_the_trigger_counts_as_a_whole_word_only():
    assert mentions("a photo of ohwx, smiling", "ohwx") and mentions("(Ohwx's face)", "ohwx")
    assert not mentions("a photo of ohwxman", "ohwx")


def test_brackets_in_captions_are_no_weights(tmp_path):
    clip = text_models.make_clip("sd15", tmp_path)
    text = _text(clip, vectors=1)
    _same(_encoded(text, "photo of (ohwx:1.4) man"),
          text_models.stock_encode(clip, r"photo of \( man :1.4\) man"))


def test_a_trigger_may_hold_any_characters(tmp_path):
    clip = text_models.make_clip("sd15", tmp_path)
    wanted = text_models.stock_encode(clip, "photo of man man, smiling")
    for trigger in ("(ohwx)", "<ohwx*>", "ohwx woman"):
        text = _text(clip, vectors=1, trigger=trigger)
        _same(_encoded(text, f"photo of {trigger} man, smiling"), wanted)


def test_an_encoder_whose_tokenizer_ignores_embeddings_reads_the_trigger(tmp_path):
    clip = text_models.make_clip("sdxl", tmp_path)
    clip.tokenizer.clip_g.embedding_identifier = "nothing:"
    text = _text(clip, vectors=1)
    assert tuple(text.tokens.rows) == ("clip_l",)
    words = text.tokens.tokens("ohwx")
    assert words["g"] == clip.tokenize("ohwx")["g"]
    clip.tokenizer.clip_l.embedding_identifier = "nothing:"
    with pytest.raises(LikenessError, match="takes no embeddings"):
        _text(clip)


def test_captions_longer_than_one_section_carry_the_word(tmp_path):
    clip = text_models.make_clip("sd15", tmp_path)
    long = "very " * 80
    _same(_encoded(_text(clip, vectors=1), f"{long} ohwx"),
          text_models.stock_encode(clip, f"{long} man"))


def test_given_rows_are_started_from(tmp_path):
    clip = text_models.make_clip("sdxl", tmp_path)
    start = {"clip_l": torch.randn(2, 64)}
    text = _text(clip, start)
    assert torch.equal(text.tokens.rows["clip_l"].detach(), start["clip_l"])
    with pytest.raises(LikenessError, match=r"\(3, 64\) for clip_l, which needs \(2, 64\)"):
        _text(clip, {"clip_l": torch.randn(3, 64)})


def test_the_penalty_grows_as_rows_leave_a_words_length(tmp_path):
    text = _text(text_models.make_clip("sdxl", tmp_path), norm_weight=0.5)
    with torch.no_grad():
        for name, rows in text.tokens.rows.items():
            rows.mul_(text.tokens.usual[name] / rows.norm(dim=-1, keepdim=True))
        assert text.norm_penalty().item() == pytest.approx(0, abs=1e-10)
        text.tokens.rows["clip_l"].mul_(3)
    penalty = text.norm_penalty()
    assert penalty.item() == pytest.approx(0.5 * 4 / 2, rel=1e-5)
    penalty.backward()
    assert text.tokens.rows["clip_l"].grad.abs().sum() > 0


def test_rows_whose_share_of_the_steps_is_over_stop_and_start_again(tmp_path):
    text = _text(text_models.make_clip("sd15", tmp_path), kind=LoRARecipe, share=0.5)
    generator = torch.Generator()
    for step, learns in ((4, True), (5, False), (9, False), (0, True)):
        text.start_step(step, generator)
        assert _encoded(text, CAPTION).requires_grad is learns
        assert bool(text.norm_penalty() != 0) is learns


def test_encodings_follow_the_rows_after_they_are_loaded(tmp_path):
    text = _text(text_models.make_clip("sd15", tmp_path), kind=LoRARecipe, share=0.5)
    text.start_step(9, torch.Generator())
    before = _encoded(text, CAPTION)
    text.load_tensors({name: 2 * value for name, value in text.tensors().items()})
    assert not torch.allclose(_encoded(text, CAPTION), before)


def test_rows_of_encoders_with_longer_words_move_faster(tmp_path):
    clip = text_models.make_clip("flux", tmp_path)
    with torch.no_grad():
        clip.cond_stage_model.t5xxl.transformer.shared.weight.mul_(20)
    rates = {group["name"]: group["lr"] for group in _text(clip).parameter_groups()}
    assert rates["tokens clip_l"] == TokenSettings().learning_rate
    assert rates["tokens t5xxl"] == pytest.approx(20 * rates["tokens clip_l"], rel=0.05)


def test_a_clip_is_needed():
    with pytest.raises(LikenessError, match="connect a CLIP loader"):
        _text(None)


def test_a_subject_without_a_trigger_cannot_teach_a_word(tmp_path):
    with pytest.raises(LikenessError, match="no trigger"):
        _text(text_models.make_clip("sd15", tmp_path), trigger=" ")
