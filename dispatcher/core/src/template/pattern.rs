//! Text with references to parameters: `simple-job-${foo}`; `$${` stands for a literal `${`.

/// A parsed text with references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Reference(String),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `${` without its `}`.
    #[error("`${{` without a closing `}}`; write `$${{` for a literal one")]
    Unclosed,
    /// What stands in the braces cannot be a parameter.
    #[error("`{0}` is no parameter's name: those are made of letters, digits and '_'")]
    NoName(String),
}

/// Whether `name` can be referred to.
pub(crate) fn is_parameter_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl Pattern {
    /// Reads a text with references.
    ///
    /// # Errors
    /// [`PatternError`] where a reference is not closed or names nothing.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut segments = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            // `$${`: the `$` before is the escape, and what follows is text.
            if let Some(before) = before.strip_suffix('$') {
                literal.push_str(before);
                literal.push_str("${");
                rest = after;
                continue;
            }
            literal.push_str(before);
            let (name, after) = after.split_once('}').ok_or(PatternError::Unclosed)?;
            if !is_parameter_name(name) {
                return Err(PatternError::NoName(name.to_owned()));
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

    /// The parameters that it refers to.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|s| match s {
            Segment::Reference(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// The text with the values put in; `None` where a referred parameter has none.
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
    fn references_are_filled_and_everything_else_is_text() {
        assert_eq!(fill("simple-job-${foo}"), "simple-job-<foo>");
        assert_eq!(fill("${a}${b}$c $(D) $"), "<a><b>$c $(D) $");
        assert_eq!(fill("$${a} ${b}"), "${a} <b>");
        assert_eq!(fill(""), "");
    }

    #[test]
    fn a_reference_that_names_nothing_is_an_error() {
        assert_eq!(Pattern::parse("${foo"), Err(PatternError::Unclosed));
        assert_eq!(Pattern::parse("${}"), Err(PatternError::NoName(String::new())));
        assert_eq!(Pattern::parse("${a-b}"), Err(PatternError::NoName("a-b".into())));
    }

    #[test]
    fn a_parameter_without_a_value_leaves_nothing_to_fill() {
        assert_eq!(Pattern::parse("x${foo}").unwrap().fill(|_| None::<&str>), None);
    }
}
