"""The review pages: where a pathologist looks at a run's slides, agrees, overrules, draws what must not count."""
