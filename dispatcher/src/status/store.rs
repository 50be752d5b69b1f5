//! The store of status events is the stream `JOB_STATUS`.

pub(crate) use crate::nats::status_stream::{LastMessage, StatusStream as Store, StoreError};
