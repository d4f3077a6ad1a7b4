"""What a vision tower loses that sees a part of a video's tokens: the experiment to run first on real weights.

    python -m bench.partial_tower --model MODEL --data questions.jsonl

For each share of the tokens that a rule keeps before the tower, its features are put beside those that the whole tower
has at the same places: alone, and with halos of neighbours. With questions, so are the answers.
"""
