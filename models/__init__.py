"""From columns of transactions to a calibrated, thresholded, explained score."""
