//! Lines of a configuration, valid and invalid, by the table that has them.
//!
//! In the files `valid.txt` and `invalid.txt` a heading names the table, and each line below it is
//! a case of its own. ` + ` stands for a line break, `-` for no line.

/// Lines that a valid file may have.
pub(crate) const VALID: &str = include_str!("valid.txt");

/// Lines that make a file invalid.
pub(crate) const INVALID: &str = include_str!("invalid.txt");

/// Calls a function with the file of each case.
pub(crate) fn each(cases: &str, mut see: impl FnMut(&str)) {
    let mut table = "";
    for line in cases.lines() {
        if let Some(case) = line.strip_prefix("    ") {
            let lines = if case == "-" { String::new() } else { case.replace(" + ", "\n") };
            see(&file(table, &lines));
        } else {
            table = line.trim_end_matches(':');
        }
    }
}

/// A file that is valid except for these lines, which are in one of its tables or are the value of
/// one of its keys.
pub(crate) fn file(table: &str, lines: &str) -> String {
    let listener = |protocol: &str, more: &str| {
        let address = "listen = \"127.0.0.1:1\"";
        format!("[[listener]]\nname = \"a\"\n{address}\nprotocol = \"{protocol}\"\n{more}")
    };
    let cluster = "\n[cluster.c]\nendpoints = [\"127.0.0.1:2\"]\n";
    let tcp = |more: &str| listener("tcp", &format!("cluster = \"c\"\n{more}{cluster}"));
    let host = |names: &str, route: &str| {
        format!("[[listener.host]]\n{names}\n[[listener.host.route]]\n{route}\n")
    };
    let site = host("", "prefix = \"/\"\nrespond = {}");
    let rule = "[[listener.tls]]\ncluster = \"c\"\n";
    match table {
        "file" => lines.to_owned(),
        "server" | "log" | "access_log" => format!("[{table}]\n{lines}\n{}", tcp("")),
        "admin" => format!("[admin]\n{lines}\n{}", tcp("")),
        "listen" => tcp("").replace("\"127.0.0.1:1\"", lines),
        "name" => tcp("").replace("\"a\"", lines),
        "tcp" => tcp(lines),
        "udp" => listener("udp", &format!("cluster = \"c\"\n{lines}{cluster}")),
        "http" => listener("http", &format!("{lines}\n{site}")),
        "http with tls" => listener("http", &format!("{lines}\n{site}{rule}{cluster}")),
        "tls" => listener("tls", &format!("{lines}\n{rule}{cluster}")),
        "host" => listener("http", &host(lines, "prefix = \"/\"\nrespond = {}")),
        "route" => listener("http", &format!("{}{cluster}", host("", lines))),
        "redirect" => {
            listener("http", &host("", &format!("prefix = \"/from/\"\nredirect = {{ {lines} }}")))
        }
        "respond" => listener("http", &host("", &format!("path = \"/\"\nrespond = {{ {lines} }}"))),
        "rule" => listener("tls", &format!("[[listener.tls]]\n{lines}\n{cluster}")),
        "acme" => format!("[acme]\n{lines}\n{}", tcp("")),
        "tls of the file" => format!("[tls]\n{lines}\n{}", tcp("")),
        "site rule" => listener("http", &format!("{site}[[listener.tls]]\n{lines}\n{cluster}")),
        "acme rule" => format!(
            "[acme]\nstorage = \"a\"\nterms_agreed = true\n{}",
            listener("http", &format!("{site}[[listener.tls]]\nacme = true\n{lines}\n{cluster}"))
        ),
        "cluster with tls" => {
            let endpoints = "endpoints = [\"127.0.0.1:2\"]";
            listener(
                "tcp",
                &format!("cluster = \"c\"\n[cluster.c]\n{endpoints}\ntls = {{ {lines} }}\n"),
            )
        }
        "cluster" => listener("tcp", &format!("cluster = \"c\"\n[cluster.c]\n{lines}\n")),
        other => unreachable!("no table {other}"),
    }
}
