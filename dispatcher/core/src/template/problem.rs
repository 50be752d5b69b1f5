//! What is wrong with a template: always the file, the field and a sentence for its author.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `job.spec.template.spec.containers[0].image`; empty for the file as a whole.
    pub field: String,
    /// What was found, and what is allowed.
    pub message: String,
}

impl Problem {
    /// A problem of the field.
    pub fn at(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The same problem, with its field inside the field `parent`.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        let field =
            if self.field.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.field) };
        Self { field, ..self }
    }

    /// A problem of the file as a whole.
    pub fn of_file(message: impl Into<String>) -> Self {
        Self::at("", message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.message),
            field => write!(f, "{field}: {}", self.message),
        }
    }
}

/// A template file that is none, or may not be used: all that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// The file's path.
    pub file: String,
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One line: the first problem, and how many there are beside it.
impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        match self.problems.as_slice() {
            [] => f.write_str("is no template"),
            [only] => write!(f, "{only}"),
            [first, more @ ..] => {
                write!(f, "{first} (and {} more: `dispatcher check {}` tells all)", more.len(), self.file)
            }
        }
    }
}

impl std::error::Error for TemplateError {}
