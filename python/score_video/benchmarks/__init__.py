"""``score bench``: models, compressors and retentions on tasks of lmms-eval, and one report of them all."""
