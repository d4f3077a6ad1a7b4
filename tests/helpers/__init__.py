"""What the tests of several folders share: videos, packed batches, tiny readers and runs. No file here is a test."""
