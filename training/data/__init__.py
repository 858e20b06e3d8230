"""Read files of transactions and labels into datasets."""
