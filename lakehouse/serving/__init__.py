"""What viewers read: the log's tail, the follower and its snapshots, and questions to them."""
