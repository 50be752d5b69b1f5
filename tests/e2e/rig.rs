//! The rig itself: that pods run, that NATS keeps what it stored, and that nothing outlives a test.
