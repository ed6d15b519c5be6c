"""What an artifact is: storage, fingerprint, manifest, leases, and the frame every stage worker runs in."""
