"""From batches and a loss to a checkpoint, for every system; none of them is known here."""
