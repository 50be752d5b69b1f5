//! What operators observe: readiness per component, metrics, and OpenTelemetry spans.

pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod spans;
