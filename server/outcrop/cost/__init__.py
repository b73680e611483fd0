"""What tokens cost: on an instance of one's own, and on Amazon Bedrock."""
