//! The end-to-end suite: one program, so that one cluster serves all its tests.

mod rig;
