"""The review pages: where a pathologist looks at a run's slides, agrees or overrules, and draws what must not count."""
