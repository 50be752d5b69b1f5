//! What operators observe: readiness per component, metrics, and OpenTelemetry spans.

pub mod health;
pub mod metrics;
pub mod spans;
