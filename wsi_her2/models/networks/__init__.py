"""The two networks: what each looks like (`architecture`), and each of them in torch."""
