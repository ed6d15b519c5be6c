"""What a training row is: the token-shard format, the order of rows, chats as tokens. Knows no model and no loss."""
