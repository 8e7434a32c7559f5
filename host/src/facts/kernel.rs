//! The kernel: its name, build options, modules and parameters; processors and memory.
//!
//! The build configuration is looked for where kubeadm looks. Like kubeadm, root loads the module `configs` where no file
//! is found, and unloads it again.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::programs::{self, SearchPath};
use super::{HostError, KernelInfo};

/// As the WIT promises.
const MAX_OPTIONS: usize = 256;

/// A configuration is about 300 KiB; more than this is none.
const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// For loading or unloading a module.
const MODPROBE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn kernel() -> KernelInfo {
    let uname = rustix::system::uname();
    let text = |value: &std::ffi::CStr| value.to_string_lossy().trim().to_owned();
    KernelInfo { name: text(uname.sysname()), release: text(uname.release()), machine: text(uname.machine()) }
}

pub(super) async fn options(names: &[String], search_path: &SearchPath) -> Result<Vec<Option<String>>, HostError> {
    let name_is_plain = |name: &String| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    if names.len() > MAX_OPTIONS || !names.iter().all(name_is_plain) {
        return Err(HostError::invalid("kernel options are at most 256 names of `[A-Z0-9_]`, without `CONFIG_`"));
    }
    let places = config_places(&kernel().release);
    if let Some(values) = find_values(&places, names).await? {
        return Ok(values);
    }
    let not_found = |why: &str| {
        let places: Vec<_> = places.iter().map(|place| place.to_string_lossy()).collect();
        HostError::not_found(format_args!("no kernel build configuration; looked at {}{why}", places.join(", ")))
    };
    if !rustix::process::getuid().is_root() {
        return Err(not_found("; only root can load the module `configs`"));
    }
    if let Err(why) = modprobe(search_path, &["configs"]).await {
        return Err(not_found(&format!("; loading the module `configs` failed: {why}")));
    }
    let values = find_values(&places, names).await;
    if let Err(why) = modprobe(search_path, &["-r", "configs"]).await {
        tracing::warn!(why, "the kernel module `configs`, loaded to read the build configuration, stays loaded");
    }
    values?.ok_or_else(|| not_found("; the module `configs` did not help"))
}

fn config_places(release: &str) -> Vec<PathBuf> {
    [
        "/proc/config.gz".to_owned(),
        format!("/boot/config-{release}"),
        format!("/usr/src/linux-{release}/.config"),
        "/usr/src/linux/.config".to_owned(),
        format!("/usr/lib/modules/{release}/config"),
        format!("/usr/lib/ostree-boot/config-{release}"),
        format!("/usr/lib/kernel/config-{release}"),
        format!("/usr/src/linux-headers-{release}/.config"),
        format!("/lib/modules/{release}/build/.config"),
    ]
    .map(PathBuf::from)
    .into()
}

async fn modprobe(search_path: &SearchPath, arguments: &[&str]) -> Result<(), String> {
    let program = search_path.find("modprobe").ok_or("modprobe not found in system path")?;
    let output = programs::run(&program, arguments, search_path, MODPROBE_TIMEOUT).await?;
    if output.status == Some(0) { Ok(()) } else { Err(output.failure()) }
}

/// The values by the first place that exists; none: no place exists.
async fn find_values(places: &[PathBuf], names: &[String]) -> Result<Option<Vec<Option<String>>>, HostError> {
    let Some(place) = places.iter().find(|place| place.exists()).cloned() else { return Ok(None) };
    let names = names.to_vec();
    // Inflating takes milliseconds, during which other facts can be asked for.
    let reading = tokio::task::spawn_blocking(move || {
        let config = read_config(&place)
            .map_err(|error| HostError::unavailable(format_args!("cannot read `{}`: {error}", place.display())))?;
        Ok(Some(values(&config, &names)))
    });
    reading.await.expect("reading a file does not panic and is not cancelled")
}

fn read_config(place: &Path) -> io::Result<String> {
    let file = std::fs::File::open(place)?;
    let mut config = String::new();
    if place.extension().is_some_and(|extension| extension == "gz") {
        flate2::read::GzDecoder::new(file).take(MAX_CONFIG_BYTES).read_to_string(&mut config)?;
    } else {
        file.take(MAX_CONFIG_BYTES).read_to_string(&mut config)?;
    }
    Ok(config)
}

/// Values of `CONFIG_<name>=<value>` lines, a text without its quotes. The last line wins, as in kubeadm.
fn values(config: &str, names: &[String]) -> Vec<Option<String>> {
    let mut values = vec![None; names.len()];
    let lines = config.lines().filter_map(|line| line.trim().strip_prefix("CONFIG_")?.split_once('='));
    for (name, value) in lines {
        for (wanted, slot) in names.iter().zip(&mut values) {
            if wanted == name {
                let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
                *slot = Some(value.to_owned());
            }
        }
    }
    values
}

/// Names of loaded modules; none where the kernel has no modules.
pub(super) fn modules() -> Result<Vec<String>, HostError> {
    match std::fs::read_to_string("/proc/modules") {
        Ok(table) => Ok(parse_modules(&table)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(HostError::unavailable(format_args!("cannot read `/proc/modules`: {error}"))),
    }
}

fn parse_modules(table: &str) -> Vec<String> {
    table.lines().filter_map(|line| line.split_ascii_whitespace().next()).map(|name| name.replace('-', "_")).collect()
}

pub(super) fn sysctl(name: &str) -> Result<String, HostError> {
    let path = sysctl_path(name)?;
    match std::fs::read_to_string(&path) {
        Ok(value) => Ok(value.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(HostError::not_found(format_args!("the kernel has no parameter `{name}`")))
        }
        Err(error) => Err(HostError::unavailable(format_args!("cannot read `{}`: {error}", path.display()))),
    }
}

/// `net.ipv4.ip_forward` is `/proc/sys/net/ipv4/ip_forward`. A `/` within a segment stands for a dot in a name, as in
/// sysctl(8): `net.ipv4.conf.eth0/100.forwarding`.
fn sysctl_path(name: &str) -> Result<PathBuf, HostError> {
    let mut path = PathBuf::from("/proc/sys");
    for segment in name.split('.') {
        let segment = segment.replace('/', ".");
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:@".contains(&byte);
        if segment.is_empty() || segment.starts_with('.') || !segment.bytes().all(allowed) {
            return Err(HostError::invalid(format_args!("`{name}` is not the name of a kernel parameter")));
        }
        path.push(segment);
    }
    Ok(path)
}

/// Processors of this process's affinity mask.
pub(super) fn usable_cpus() -> Result<u64, HostError> {
    let mask = rustix::thread::sched_getaffinity(None)
        .map_err(|error| HostError::unavailable(format_args!("cannot read the affinity mask: {error}")))?;
    Ok(u64::from(mask.count()))
}

/// Usable memory in bytes.
pub(super) fn memory_total() -> u64 {
    let info = rustix::system::sysinfo();
    // Both are `unsigned long` and `unsigned int` of the C library, whatever their width here.
    #[expect(clippy::useless_conversion, reason = "the width differs by architecture")]
    let (pages, unit_bytes) = (u64::from(info.totalram), u64::from(info.mem_unit));
    pages.saturating_mul(unit_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn options_are_found_in_the_order_asked_for() {
        let config = "# Linux\nCONFIG_A=y\n# CONFIG_B is not set\n CONFIG_C=m\nCONFIG_LOCALVERSION=\"-lab\"\nCONFIG_A=n\nCONFIG_AB=y\nX=y\n";
        let values = values(config, &names(&["C", "B", "A", "LOCALVERSION"]));
        assert_eq!(values, [Some("m".into()), None, Some("n".into()), Some("-lab".into())]);
    }

    #[test]
    fn compressed_and_plain_configurations_are_read() {
        use std::io::Write;
        let directory = tempfile::tempdir().unwrap();
        let (plain, compressed) = (directory.path().join("config"), directory.path().join("config.gz"));
        std::fs::write(&plain, "CONFIG_A=y\n").unwrap();
        let mut encoder =
            flate2::write::GzEncoder::new(std::fs::File::create(&compressed).unwrap(), flate2::Compression::fast());
        encoder.write_all(b"CONFIG_A=y\n").unwrap();
        encoder.finish().unwrap();
        assert_eq!(read_config(&plain).unwrap(), read_config(&compressed).unwrap());
        std::fs::write(&compressed, "not gzip").unwrap();
        assert!(read_config(&compressed).is_err());
    }

    #[tokio::test]
    async fn first_place_that_exists_is_used_and_unreadable_is_not_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let (absent, directory_itself) = (directory.path().join("absent"), directory.path().to_owned());
        let config = directory.path().join("config");
        std::fs::write(&config, "CONFIG_A=m\n").unwrap();
        let wanted = names(&["A"]);
        assert_eq!(find_values(std::slice::from_ref(&absent), &wanted).await, Ok(None));
        assert_eq!(find_values(&[absent, config.clone()], &wanted).await, Ok(Some(vec![Some("m".into())])));
        assert_eq!(find_values(&[directory_itself, config], &wanted).await.unwrap_err().code, "unavailable");
    }

    #[tokio::test]
    async fn odd_option_names_are_invalid() {
        let search_path = SearchPath::default();
        for bad in [names(&["a"]), names(&[""]), names(&["A=y"]), vec!["A".to_owned(); MAX_OPTIONS + 1]] {
            assert_eq!(options(&bad, &search_path).await.unwrap_err().code, "invalid");
        }
    }

    #[test]
    fn parameters_cannot_leave_their_tree() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward").unwrap(), Path::new("/proc/sys/net/ipv4/ip_forward"));
        let vlan = sysctl_path("net.ipv4.conf.eth0/100.forwarding").unwrap();
        assert_eq!(vlan, Path::new("/proc/sys/net/ipv4/conf/eth0.100/forwarding"));
        for bad in
            ["", ".", "..", "net..ipv4", "net.//.x", "/etc.passwd", "net.ipv4/", "a b", "net.\u{0}", "net/ipv4/../../x"]
        {
            let path = sysctl_path(bad);
            let stays =
                path.is_ok_and(|path| path.components().all(|part| part.as_os_str() != "..") && bad == "net.ipv4/");
            assert!(sysctl_path(bad).is_err() || stays, "{bad}");
        }
    }

    #[test]
    fn this_kernel_answers() {
        assert_eq!(kernel().name, "Linux");
        assert!(!kernel().release.is_empty());
        assert_eq!(sysctl("kernel.ostype").unwrap(), "Linux");
        assert_eq!(sysctl("kernel.no_such_thing").unwrap_err().code, "not-found");
        assert!(usable_cpus().unwrap() >= 1);
        assert!(memory_total() > 1 << 20);
        modules().unwrap();
    }

    #[test]
    fn module_names_have_no_dashes() {
        assert_eq!(parse_modules("br-netfilter 1 0 - Live 0x0\noverlay 2 1 - Live 0x0\n"), ["br_netfilter", "overlay"]);
    }
}
