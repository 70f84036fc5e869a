"""Likeness and flexibility over strengths of a LoRA, or over models."""
