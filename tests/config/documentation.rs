//! The configurations on the pages of the documentation, as files that can be read.
//!
//! A block without a listener is a part of one, as docs/migration.md says: keys of the listener,
//! then its tables, then clusters. What it leaves out is added here.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// The blocks of TOML on a page.
pub(crate) fn blocks(page: &str) -> impl Iterator<Item = &str> {
    page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default())
}

/// The configuration of a block. `base` has the files in place of those of a machine.
pub(crate) fn completed(block: &str, base: &Path) -> String {
    let site = base.join("site");
    for page in ["index.html", "404.html", "50x.html", "app/index.html"] {
        let page = site.join(page);
        fs::create_dir_all(page.parent().expect("it is in a directory")).expect("a directory");
        fs::write(page, "a page").expect("a page can be written");
    }
    let text = if block.contains("[[listener]]") { block.to_owned() } else { in_listener(block) };
    let (site, base) = (site.display().to_string(), format!("{}/", base.display()));
    text.replace("/var/www/example", &site).replace("/etc/ringgate/", &base)
}

/// A part of a listener, with what is around it.
fn in_listener(part: &str) -> String {
    const ROUTE: &str = "[[listener.host.route]]";
    let at = part.find('[').filter(|at| part[..*at].trim().is_empty());
    let at = at.or_else(|| part.find("\n\n")).unwrap_or(part.len());
    let (keys, tables) = part.split_at(at);
    let (tables, mut clusters) = match tables.find("\n[cluster.") {
        Some(at) => (tables[..at].to_owned(), tables[at..].to_owned()),
        None => (tables.to_owned(), String::new()),
    };
    let tables = match (tables.contains("[[listener.host]]"), tables.contains(ROUTE)) {
        (true, _) => tables,
        (false, true) => tables.replacen(ROUTE, &format!("[[listener.host]]\n{ROUTE}"), 1),
        (false, false) => {
            format!("{tables}\n[[listener.host]]\n{ROUTE}\nprefix = \"/\"\nrespond = {{}}\n")
        }
    };
    let names = tables.split("cluster = \"").skip(1).filter_map(|rest| rest.split('"').next());
    for name in names.collect::<BTreeSet<&str>>() {
        if !clusters.contains(&format!("[cluster.{name}]")) {
            let _ = write!(clusters, "\n[cluster.{name}]\nendpoints = [\"127.0.0.1:1\"]\n");
        }
    }
    let (acme, tls) = if tables.contains("[[listener.tls]]") {
        ("", "")
    } else {
        (
            "[acme]\nstorage = \"/var/lib/ringgate/acme\"\nterms_agreed = true\n",
            "[[listener.tls]]\nnames = [\"www.example.com\"]\nacme = true\n",
        )
    };
    format!(
        "{acme}[[listener]]\nname = \"web\"\nlisten = \"0.0.0.0:443\"\nprotocol = \"http\"\n\
         {keys}\n{tls}{tables}{clusters}"
    )
}
