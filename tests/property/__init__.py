"""Properties that hold for whatever hypothesis thinks of. ``FUZZ_CASES`` sets how many cases."""
