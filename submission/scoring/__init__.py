"""What a submission scores and costs, on local data with known answers."""
