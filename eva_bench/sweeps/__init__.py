"""Many runs: planned, spread over processes and jobs, watched, and learning rates chosen from them."""
