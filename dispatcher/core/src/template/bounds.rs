//! `x-minimum` and `x-maximum`: the bounds of a quantity, compared by value (`1Gi` is more than
//! `1000M`).

use jsonschema::{Keyword, ValidationError, ValidationOptions, paths::Location};
use serde_json::{Map, Value};

use crate::template::{problem::Problem, quantity::Quantity, scalar};

/// The keyword of the least value.
pub(super) const MINIMUM: &str = "x-minimum";
/// The keyword of the largest value.
pub(super) const MAXIMUM: &str = "x-maximum";

/// Keywords whose values are no schemas.
const DATA: [&str; 4] = ["const", "default", "enum", "examples"];

/// A bound of a quantity.
struct Bound {
    is_maximum: bool,
    limit: Quantity,
    text: String,
}

impl Bound {
    fn new(is_maximum: bool, value: &Value) -> Result<Self, String> {
        let text = scalar::text(value)?;
        let limit = Quantity::parse(&text);
        let limit = limit.ok_or("expected a Kubernetes quantity such as 64Mi, 1.5G or 100m")?;
        Ok(Self { is_maximum, limit, text })
    }

    /// Why the value is not allowed. A value without a text is refused elsewhere.
    fn problem(&self, value: &Value) -> Option<String> {
        let text = scalar::text(value).ok()?;
        let Some(found) = Quantity::parse(&text) else {
            return Some("expected a Kubernetes quantity such as 64Mi, 1.5G or 100m".to_owned());
        };
        let (is_outside, side) =
            if self.is_maximum { (found > self.limit, "at most") } else { (found < self.limit, "at least") };
        is_outside.then(|| format!("expected {side} {}, found {text}", self.text))
    }
}

impl<'i> Keyword<'i> for Bound {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        self.problem(instance).map_or(Ok(()), |message| Err(ValidationError::custom(message)))
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        self.problem(instance).is_none()
    }
}

type Compiled<'a> = Result<Box<dyn for<'i> Keyword<'i>>, ValidationError<'a>>;

fn compile(is_maximum: bool, value: &Value) -> Compiled<'_> {
    match Bound::new(is_maximum, value) {
        Ok(bound) => Ok(Box::new(bound)),
        Err(message) => Err(ValidationError::custom(message)),
    }
}

/// Adds both keywords to a validator.
pub(super) fn with_keywords(options: ValidationOptions<'_>) -> ValidationOptions<'_> {
    options
        .with_keyword(MINIMUM, |_: &Map<String, Value>, value, _: Location| compile(false, value))
        .with_keyword(MAXIMUM, |_: &Map<String, Value>, value, _: Location| compile(true, value))
}

/// The bounds in a schema that are no quantities, that leave no value, or that stand at a number.
pub(super) fn problems(schema: &Value, path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    match schema {
        Value::Object(object) => {
            problems.extend(of_object(object, path));
            for (key, value) in object.iter().filter(|(key, _)| !DATA.contains(&key.as_str())) {
                problems.extend(self::problems(value, &format!("{path}.{key}")));
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                problems.extend(self::problems(item, &format!("{path}[{i}]")));
            }
        }
        _ => {}
    }
    problems
}

fn of_object(object: &Map<String, Value>, path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut bounds = Vec::new();
    for (keyword, is_maximum, plain) in [(MINIMUM, false, "minimum"), (MAXIMUM, true, "maximum")] {
        let Some(value) = object.get(keyword) else { continue };
        let at = format!("{path}.{keyword}");
        if object.get("type").is_some_and(|kind| kind == "integer" || kind == "number") {
            problems.push(Problem::at(at, format!("is for quantities; use `{plain}` for a number")));
            continue;
        }
        match Bound::new(is_maximum, value) {
            Ok(bound) => bounds.push(bound),
            Err(message) => problems.push(Problem::at(at, message)),
        }
    }
    if let [least, most] = bounds.as_slice()
        && least.limit > most.limit
    {
        let message = format!("is more than `{MAXIMUM}`, {}", most.text);
        problems.push(Problem::at(format!("{path}.{MINIMUM}"), message));
    }
    problems
}
