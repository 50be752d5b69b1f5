//! Text with references to parameters: `simple-job-${foo}`. `$${` is a literal `${`.

/// A parsed text with references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Reference(String),
}

/// The text is not a valid pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `${` without a closing `}`.
    #[error("`${{` has no closing `}}`; write `$${{` for a literal `${{`")]
    Unclosed,
    /// The text in the braces cannot be the name of a parameter.
    #[error("`{0}` is not a valid parameter name (letters, digits and '_')")]
    InvalidName(String),
}

/// Whether `name` is a valid parameter name.
pub(crate) fn is_parameter_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl Pattern {
    /// Parses a text with references.
    ///
    /// # Errors
    /// If a reference is not closed or its name is invalid.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut segments = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            // `$${` escapes `${`.
            if let Some(before) = before.strip_suffix('$') {
                literal.push_str(before);
                literal.push_str("${");
                rest = after;
                continue;
            }
            literal.push_str(before);
            let (name, after) = after.split_once('}').ok_or(PatternError::Unclosed)?;
            if !is_parameter_name(name) {
                return Err(PatternError::InvalidName(name.to_owned()));
            }
            if !literal.is_empty() {
                segments.push(Segment::Literal(std::mem::take(&mut literal)));
            }
            segments.push(Segment::Reference(name.to_owned()));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal));
        }
        Ok(Self(segments))
    }

    /// The names of the referenced parameters.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|s| match s {
            Segment::Reference(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// The text before the first reference.
    pub(super) fn start(&self) -> &str {
        match self.0.first() {
            Some(Segment::Literal(literal)) => literal,
            _ => "",
        }
    }

    /// Substitutes the references; `None` if a referenced parameter has no value.
    pub fn fill<V: AsRef<str>>(&self, value: impl Fn(&str) -> Option<V>) -> Option<String> {
        let mut text = String::new();
        for segment in &self.0 {
            match segment {
                Segment::Literal(literal) => text.push_str(literal),
                Segment::Reference(name) => text.push_str(value(name)?.as_ref()),
            }
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> String {
        Pattern::parse(text).unwrap().fill(|name| Some(format!("<{name}>"))).unwrap()
    }

    #[test]
    fn references_are_substituted_and_other_text_is_kept() {
        assert_eq!(fill("simple-job-${foo}"), "simple-job-<foo>");
        assert_eq!(fill("${a}${b}$c $(D) $"), "<a><b>$c $(D) $");
        assert_eq!(fill("$${a} ${b}"), "${a} <b>");
        assert_eq!(fill(""), "");
    }

    #[test]
    fn invalid_reference_is_an_error() {
        assert_eq!(Pattern::parse("${foo"), Err(PatternError::Unclosed));
        assert_eq!(Pattern::parse("${}"), Err(PatternError::InvalidName(String::new())));
        assert_eq!(Pattern::parse("${a-b}"), Err(PatternError::InvalidName("a-b".into())));
    }

    #[test]
    fn reference_without_value_gives_nothing() {
        assert_eq!(Pattern::parse("x${foo}").unwrap().fill(|_| None::<&str>), None);
    }
}
