//! The build without the cargo feature `otlp`: no spans, and no OpenTelemetry libraries.

use std::time::Duration;

use dispatcher_core::contract::trace::{Trace, TraceContext};

use crate::{
    cli::StartError,
    telemetry::spans::{Delivered, DeliverySpan, JobSpan, endpoint, unchanged, variable},
};

/// Records nothing. Its methods are those of the build with `otlp`.
#[derive(Clone, Default)]
pub(crate) struct Spans(());

#[allow(clippy::unused_self, reason = "the methods of the build with `otlp` need `self`")]
impl Spans {
    /// Checks that no OTLP endpoint is configured.
    ///
    /// # Errors
    /// [`StartError`] names the variable and the missing cargo feature.
    pub(crate) fn from_env() -> Result<Self, StartError> {
        Self::from_variables(variable)
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, StartError> {
        let Some((name, _)) = endpoint(variable) else { return Ok(Self::default()) };
        let message = "this build cannot export spans: unset the variable, or build the dispatcher \
                       with the cargo feature `otlp`";
        Err(StartError::new(name, message))
    }

    /// Passes the request's trace context on unchanged.
    #[must_use]
    pub(crate) fn context(&self, request: Option<&Trace>, _: &Delivered<'_>) -> TraceContext {
        unchanged(request)
    }

    /// Does nothing.
    pub(crate) fn delivery(&self, _: &DeliverySpan<'_>, _: &TraceContext) {}

    /// Does nothing.
    pub(crate) fn ended(&self, _: &JobSpan<'_>) {}

    /// Does nothing.
    pub(crate) fn stop(self, _: Duration) -> impl Future<Output = ()> {
        std::future::ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_endpoint_is_an_error_that_names_the_missing_feature() {
        let variable = |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| "http://a".to_owned());
        let error = Spans::from_variables(variable).err().unwrap().to_string();
        assert!(error.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: "), "{error}");
        assert!(error.contains("cargo feature `otlp`"), "{error}");
        assert!(Spans::from_variables(|_| None).is_ok());
    }
}
