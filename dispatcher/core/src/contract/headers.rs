//! The headers of the contract, and values that are safe to put in them.

/// On events: the type.
pub const JOB_EVENT: &str = "Job-Event";
/// On events: the Job's uid.
pub const JOB_UID: &str = "Job-Uid";
/// On events and rejections: the request's identity.
pub const JOB_REQUEST_ID: &str = "Job-Request-Id";
/// On rejections: the request's sequence in `JOBS`, what its publisher found in the `PubAck`.
pub const JOB_REQUEST_SEQ: &str = "Job-Request-Seq";
/// On events: the hash of the request, so that a repeated identity with another request is known for one.
pub const JOB_REQUEST_HASH: &str = "Job-Request-Hash";
/// On events: the newest resourceVersion of the Job that has been said.
pub const JOB_RESOURCE_VERSION: &str = "Job-Resource-Version";
/// On rejections: the Job's name, where it is valid.
pub const JOB_NAME: &str = "Job-Name";
/// On rejections: the reason, one word.
pub const JOB_ERROR: &str = "Job-Error";
/// On rejections: the reason, for a reader.
pub const JOB_ERROR_MESSAGE: &str = "Job-Error-Message";
/// On `submit`: what to wait for, `created` or `outcome`.
pub const JOB_WAIT: &str = "Job-Wait";
/// On `submit`: for how long at most, in seconds.
pub const JOB_WAIT_TIMEOUT: &str = "Job-Wait-Timeout";
/// NATS' own: a publisher's identity for a message.
pub const NATS_MSG_ID: &str = "Nats-Msg-Id";

/// The longest header value that the dispatcher writes, in bytes.
pub const MAX_VALUE: usize = 1024;

/// Makes `text` a header value: no control character (a CR or LF would end the header), at most [`MAX_VALUE`] bytes.
pub fn safe_value(text: &str) -> String {
    let mut value = String::with_capacity(text.len().min(MAX_VALUE));
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if value.len() + c.len_utf8() > MAX_VALUE {
            break;
        }
        value.push(c);
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_value_is_one_bounded_line(text in "(?s).{0,1200}") {
            let value = safe_value(&text);
            prop_assert!(value.len() <= MAX_VALUE);
            prop_assert!(!value.chars().any(char::is_control));
        }
    }

    #[test]
    fn a_good_value_stays_as_it_is() {
        assert_eq!(safe_value("field `foo`: größer"), "field `foo`: größer");
        assert_eq!(safe_value("a\r\nNats-Msg-Id: x"), "a  Nats-Msg-Id: x");
    }
}
