"""What is wrong with a submission, found before it is uploaded."""
