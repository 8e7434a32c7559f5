//! Paths as Go's `path/filepath` writes them: they stand in arguments, where kubeadm's text counts.

/// `filepath.Clean`.
pub(super) fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => drop(kept.pop()),
            ".." if absolute => {}
            segment => kept.push(segment),
        }
    }
    match (absolute, kept.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".into(),
        (false, rest) => rest,
    }
}

/// `filepath.Join` of a directory and a name.
pub(super) fn join(directory: &str, name: &str) -> String {
    clean(&format!("{directory}/{name}"))
}

/// `filepath.Dir`: `.` for a path without a directory.
pub(super) fn dir(path: &str) -> String {
    clean(path.rfind('/').map_or("", |slash| &path[..=slash]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        // Printed by Go 1.26: filepath.Clean, filepath.Dir.
        for (path, cleaned, directory) in [
            ("", ".", "."),
            ("/", "/", "/"),
            ("a", "a", "."),
            ("a/b/", "a/b", "a/b"),
            ("/a//b/./c", "/a/b/c", "/a/b"),
            ("/a/../../b", "/b", "/"),
            ("../../a", "../../a", "../.."),
            ("a/../..", "..", "."),
            ("./a", "a", "."),
        ] {
            assert_eq!((clean(path).as_str(), dir(path).as_str()), (cleaned, directory), "{path}");
        }
        assert_eq!(join("/pki/", "etcd/ca.crt"), "/pki/etcd/ca.crt");
    }
}
