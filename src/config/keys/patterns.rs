//! Patterns of values, for the schema. `check` reads these values and says what is wrong with them.
//!
//! A pattern accepts every valid value. It is short rather than exact, because editors show it in
//! their messages. It has no look-around and no class that differs between the dialects of regular
//! expressions.

/// Labels of a host name.
macro_rules! labels {
    () => {
        r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*"
    };
}

/// An IPv6 address with at least two colons, with or without brackets.
macro_rules! ipv6 {
    () => {
        r"\[?[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]?"
    };
}

/// The start of an IP address and its colon.
macro_rules! ip {
    () => {
        r"([0-9.]+|\[[0-9A-Fa-f:.]+\]):"
    };
}

/// A port other than 0.
macro_rules! port {
    () => {
        r"0*[1-9][0-9]*"
    };
}

/// An absolute path that does not end with a slash.
macro_rules! unix {
    () => {
        r"unix:(/+[^/]+)+"
    };
}

/// At least one character, without control characters and without spaces around it.
macro_rules! field_value {
    () => {
        r"[^\x00-\x20\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\x9f])?"
    };
}

/// A segment of a path that is no dot segment.
macro_rules! file_name {
    () => {
        r"([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+)"
    };
}

/// An element of `listen`.
pub(super) const LISTEN: &str = concat!("^(", ip!(), "[0-9]+(-[0-9]+)?|", unix!(), ")$");
/// The address of the admin endpoint: no range of ports.
pub(super) const LISTEN_ADMIN: &str = concat!("^(", ip!(), "[0-9]+|", unix!(), ")$");
/// An element of `listen` of a udp listener.
pub(super) const LISTEN_UDP: &str = concat!("^", ip!());
/// An endpoint of a static cluster.
pub(super) const ENDPOINT: &str = concat!("^(", ip!(), port!(), "|", unix!(), ")$");
/// An endpoint of a strict_dns cluster.
pub(super) const DNS_ENDPOINT: &str = concat!("^(", labels!(), r"\.?:|", ip!(), ")", port!(), "$");
/// A host without port.
pub(super) const HOST: &str = concat!("^(", labels!(), "|", ipv6!(), ")$");
/// A host with or without port.
pub(super) const HOST_AND_PORT: &str =
    concat!("^(", labels!(), "(:", port!(), ")?|", ipv6!(), "(:", port!(), ")?)$");
/// One of `names`.
pub(super) const HOST_NAME: &str =
    concat!(r"^((\*\.)?", labels!(), "|", labels!(), r"\.\*|", ipv6!(), ")$");
/// One of the `names` of a TLS rule. IPv4 addresses cannot be told from names here.
pub(super) const SERVER_NAME: &str = concat!(r"^((\*\.)?", labels!(), "|", labels!(), r"\.\*)$");
/// A path of a request: printable ASCII without a query.
pub(super) const PATH: &str = r#"^/[!"$->@-~]*$"#;
/// The path of a file for records: it has a slash and does not end with one.
pub(super) const RECORDS: &str = "^(stdout|stderr|off)$|/[^/]+$";
/// `text`, `json`, `combined` or a template.
pub(super) const RECORD_FORMAT: &str =
    r"^(text|json|combined|(([^%]|%%)*%\{[a-z_]+\})+([^%]|%%)*)$";
/// An https URL.
pub(super) const HTTPS: &str = r#"^https://[!"$-~]+$"#;
/// A mailto URL with one address.
pub(super) const CONTACT: &str = "^mailto:[!-+.->@-~-]+@[!-+.->@-~-]+$";
/// A media type, such as `text/html; charset=utf-8`.
pub(super) const CONTENT_TYPE: &str = "^([!-~][ -~]*)?/([ -~]*[!-~])?$";
/// The name of a header field: a token.
pub(super) const FIELD_NAME: &str = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";
/// The value of a header field: no control characters, and no spaces around it.
pub(super) const FIELD_VALUE: &str = concat!("^(", field_value!(), ")?$");
/// The value of a header field that is not empty.
pub(super) const SOME_FIELD_VALUE: &str = concat!("^", field_value!(), "$");
/// The name of a file.
pub(super) const FILE_NAME: &str = concat!("^", file_name!(), "$");
/// A path of a file below a directory, with a slash at its start.
pub(super) const FILE_PATH: &str = concat!("^(/", file_name!(), ")+$");
/// An IP address, or a network such as `10.0.0.0/8`.
pub(super) const NETWORK: &str = r"^[0-9A-Fa-f:.]+(/[0-9]+)?$";
/// An error status.
pub(super) const ERROR_STATUS: &str = "^[45][0-9]{2}$";
/// Whole seconds or `off`.
pub(super) const KEEPALIVE: &str = "^(off|0*[1-9][0-9]*(000ms|s|m|h))$";
/// A size from 1 KiB to 64 KiB.
pub(super) const HEAD_SIZE: &str = "^0*([1-9][0-9]{3,4}B|[1-9][0-9]?KiB)$";
