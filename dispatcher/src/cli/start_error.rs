//! The error of a setting that prevents the start.

/// A setting that prevents the start: one line that names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {message}")]
pub struct StartError {
    setting: String,
    message: String,
    transient: bool,
}

impl StartError {
    /// An error in `setting`; the message should name the allowed values.
    pub fn new(setting: impl Into<String>, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self { setting: setting.into(), message: message.replace('\n', " "), transient: false }
    }

    /// The setting, perhaps with its value.
    #[must_use]
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// What is wrong, without the setting.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error, as one that passes without a change by an operator: NATS or the API server is
    /// away.
    #[must_use]
    pub fn transient_if(self, transient: bool) -> Self {
        Self { transient, ..self }
    }

    /// Whether the start may succeed later without a change by an operator.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.transient
    }
}
