//! `[admin]`

use schemars::JsonSchema;
use serde::Deserialize;

use super::patterns::LISTEN_ADMIN;
use crate::config::types::Field;

/// The admin endpoint: state, metrics and commands of the running process, over HTTP/1.1.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-foreign" = {
    "address": "listen",
    "bind": "listen",
    "port": "listen",
    "socket": "listen",
    "origins": "the Host of a request must be the address of `listen`, or a name of this machine's \
                loopback interface",
    "token": "write the token to a file, and name it in `token_file`",
    "password": "write a token to a file, and name it in `token_file`",
}))]
pub(in crate::config) struct Admin {
    /// Where it listens: `IP:port`, `[IPv6]:port` or `unix:/path`. Any other address than one of
    /// the loopback interface needs `token_file`. A Unix socket is open to the user of ringgate and
    /// its group.
    #[schemars(
        regex(pattern = LISTEN_ADMIN), example = "127.0.0.1:9901",
        example = "unix:/run/ringgate/admin.sock",
        extend("x-required" = "write the address of the admin endpoint: \
                               listen = \"unix:/run/ringgate/admin.sock\"")
    )]
    pub(in crate::config) listen: Field<String>,
    /// A file with the token that requests must have, as `Authorization: Bearer TOKEN`: 16 to 1024
    /// visible ASCII characters, such as those of `openssl rand -hex 32`. It is read again with the
    /// configuration. Without it every request that reaches the address is served.
    #[schemars(example = "/etc/ringgate/admin.token")]
    pub(in crate::config) token_file: Field<String>,
}
