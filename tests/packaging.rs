//! The files of packages agree with each other and with the program: paths, limits of time, and the
//! reasons of kernel settings. scripts/package-test tries the package itself.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use ringgate::config::{self, Config};

fn text_of(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn valid(name: &str, text: &str) -> Config {
    config::parse(name, text, Path::new("")).unwrap_or_else(|errors| panic!("{errors}"))
}

/// How long a process that is asked to end may take.
fn drain(config: &Config) -> Duration {
    config.server.drain_delay.unwrap_or_default() + config.server.drain_timeout
}

/// The value of the first line with this key.
fn value<'t>(text: &'t str, key: &str) -> &'t str {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(key));
    value.unwrap_or_else(|| panic!("no {key}")).trim()
}

/// The configuration within the manifest of Kubernetes.
fn in_daemonset(manifest: &str) -> String {
    let (_, block) = manifest.split_once("  ringgate.toml: |\n").expect("a configuration");
    block.lines().take_while(|line| *line != "---").fold(String::new(), |text, line| {
        text + line.strip_prefix("    ").unwrap_or_default() + "\n"
    })
}

#[test]
fn the_manifest_of_kubernetes_waits_for_the_drain_of_its_configuration() {
    let manifest = text_of("config/kubernetes/daemonset.yaml");
    let text = in_daemonset(&manifest);
    let config = valid("daemonset.yaml", &text);
    let drain = drain(&config);
    let grace = value(&manifest, "terminationGracePeriodSeconds:").parse().expect("seconds");
    assert!(drain < Duration::from_secs(grace), "{drain:?} of {grace} s");
    let (_, port) = value(&text, "listen = \"127.").trim_matches('"').split_once(':').unwrap();
    for probe in ["/ready", "/healthz"] {
        let asked = format!("{{host: 127.0.0.1, path: {probe}, port: {port}}}");
        assert!(manifest.contains(&asked), "no probe asks {asked}");
    }
    let image = format!("image: ringgate:{}\n", env!("CARGO_PKG_VERSION"));
    assert!(manifest.contains(&image), "the image is not of this version");
}

#[test]
fn the_unit_waits_for_the_drain_of_the_default_configuration_and_reloads_by_its_socket() {
    let unit = text_of("config/systemd/ringgate.service");
    // It refuses openat2(2), by which files are served.
    assert!(!unit.contains("RestrictSUIDSGID=yes"));
    let text = text_of("config/service.toml");
    let config = valid("service.toml", &text);
    let drain = drain(&config);
    let stop = value(&unit, "TimeoutStopSec=").parse().expect("seconds");
    assert!(drain < Duration::from_secs(stop), "{drain:?} of {stop} s");
    let (_, socket) = text.split_once("listen = \"unix:").expect("the admin endpoint");
    let socket = socket.split('"').next().expect("a path");
    assert!(value(&unit, "ExecReload=").contains(&format!("-S {socket} ")), "another socket");
    // With a token it needs this variable: the command line has it under the same name.
    assert!(unit.contains("Environment=RINGGATE_ADMIN_TOKEN_FILE="), "no word about a token");
    let log = value(&text, "path = \"/var").trim_end_matches('"');
    let rotated = text_of("config/logrotate");
    assert!(Path::new(log).parent().is_some_and(|directory| {
        rotated.contains(&format!("\n/var{}/*.log {{", directory.display()))
    }));
}

/// Runs a script of sh(1) with these programs in place of others.
fn run_with(
    directory: &Path,
    programs: &[(&str, &str)],
    script: &str,
    arguments: &[&str],
) -> Output {
    for (name, text) in programs {
        let program = directory.join(name);
        fs::write(&program, format!("#!/bin/sh\n{text}\n")).expect("a script");
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    let path = format!("{}:/usr/bin:/bin", directory.display());
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).arg("sh").args(arguments).env("PATH", path);
    // Signals to its group do not reach the test.
    command.process_group(0).current_dir(directory).output().expect("sh")
}

#[test]
fn a_reload_of_the_unit_that_nothing_answers_falls_back_to_a_signal() {
    let unit = text_of("config/systemd/ringgate.service");
    let script = value(&unit, "ExecReload=/bin/sh -c '").trim_end_matches('\'');
    // With and without a socket, the exit code of `ringgate reload`, that of the script, and the
    // commands that it runs. Each of them gets what logrotate sends to all processes of a service.
    let cases = [
        (true, 0, 0, "reload\n"),
        (true, 1, 1, "reload\n"),
        (true, 2, 0, "reload\ncheck\nsignal\n"),
        (false, 1, 0, "check\nsignal\n"),
    ];
    for (has_socket, reloaded, code, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("admin.sock");
        let _listener =
            has_socket.then(|| std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
        let ringgate = format!("kill -USR1 0; echo $1 >>said\n[ $1 != reload ] || exit {reloaded}");
        // The script is the main process, too.
        let script = script
            .replace("/run/ringgate/admin.sock", &socket.display().to_string())
            .replace("$$MAINPID", "$$$$")
            .replace("$$", "$");
        let script = format!("trap 'echo signal >>said' HUP\n{script}");
        let output = run_with(directory.path(), &[("ringgate", &ringgate)], &script, &[]);
        let case = format!("{has_socket} {reloaded}: {output:?}");
        assert_eq!((output.status.code(), output.status.signal()), (Some(code), None), "{case}");
        assert_eq!(fs::read_to_string(directory.path().join("said")).unwrap(), expected, "{case}");
    }
}

#[test]
fn an_installation_after_a_removal_starts_the_service_and_an_upgrade_does_not() {
    // The mask before, what is left of it by deb-systemd-helper, and whether a start is expected. A
    // mask that the administrator has made stays.
    for (is_masked, is_own, is_started) in
        [(true, true, true), (true, false, false), (false, true, false)]
    {
        let directory = tempfile::tempdir().unwrap();
        let in_directory = |name: &str| directory.path().join(name).display().to_string();
        fs::create_dir_all(directory.path().join("run")).unwrap();
        if is_masked {
            symlink("/dev/null", directory.path().join("mask")).unwrap();
        }
        let script = text_of("config/debian/postinst")
            .replace("/run/systemd/system", &in_directory("run"))
            .replace("/etc/systemd/system/ringgate.service", &in_directory("mask"));
        let unmask = if is_own { "[ $1 != unmask ] || rm -f mask" } else { "" };
        let programs = [
            ("getent", ""),
            ("deb-systemd-helper", unmask),
            ("deb-systemd-invoke", "echo $1 >>said"),
            ("systemctl", "[ $2 != is-active ]"),
        ];
        let output = run_with(directory.path(), &programs, &script, &["configure", "0.1.0-1"]);
        assert!(output.status.success(), "{output:?}");
        let said = fs::read_to_string(directory.path().join("said")).unwrap_or_default();
        assert_eq!(said == "start\n", is_started, "{is_masked} {is_own}: {said}");
    }
}

#[test]
fn every_kernel_setting_has_its_reason_and_source() {
    let text = text_of("config/sysctl.d/60-ringgate.conf");
    let mut settings = 0;
    for block in text.split("\n\n") {
        let is_setting = |line: &&str| {
            line.trim_start_matches('#')
                .split(" = ")
                .next()
                .is_some_and(|name| name.contains('.') && !name.contains(' ') && !name.is_empty())
        };
        let count = block.lines().filter(is_setting).count();
        settings += count;
        assert!(count == 0 || block.contains("Source: "), "no source:\n{block}");
        assert!(count <= 1, "one reason for {count} settings:\n{block}");
    }
    assert!(settings >= 4, "{settings}");
    assert!(text.contains("\nnet.ipv4.tcp_migrate_req = 1\n"));
}
