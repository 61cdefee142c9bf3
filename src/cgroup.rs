//! The memory limit of the control group in which the process runs: that of its container or service.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where Linux mounts control groups: version 2 directly, the controllers of version 1 in directories.
const MOUNT: &str = "/sys/fs/cgroup";

/// The groups of this process, one line for each hierarchy: `ID:CONTROLLERS:PATH` (cgroups(7)).
const OWN: &str = "/proc/self/cgroup";

/// Larger values mean that there is no limit: version 1 has the largest multiple of the page size instead.
const NO_LIMIT: u64 = 1 << 60;

/// The memory in bytes that the process may use. `None`: there is no limit, or no control group.
pub(crate) fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string(OWN).ok()?;
    smallest(&groups, Path::new(MOUNT))
}

/// The smallest limit of the groups and of all groups around them.
fn smallest(groups: &str, mount: &Path) -> Option<u64> {
    let files = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let is_memory = controllers.split(',').any(|name| name == "memory");
        let (hierarchy, file) = match controllers {
            "" => (mount.to_owned(), "memory.max"),
            _ if is_memory => (mount.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        Some(limit_of(&hierarchy, path, file))
    });
    files.flatten().min()
}

/// The smallest limit from the group at `path` up to the root of the hierarchy. A container often sees its own group as the
/// root, under a path that exists only outside.
fn limit_of(hierarchy: &Path, path: &str, file: &str) -> Option<u64> {
    let group: PathBuf = hierarchy.join(path.trim_start_matches('/'));
    let groups = group.ancestors().take_while(|up| up.starts_with(hierarchy));
    groups.filter_map(|group| read(&group.join(file))).min()
}

fn read(file: &Path) -> Option<u64> {
    let limit = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (limit < NO_LIMIT).then_some(limit)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn hierarchy(files: &[(&str, &str)]) -> TempDir {
        let mount = TempDir::new().unwrap();
        for (path, limit) in files {
            let path = mount.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{limit}\n")).unwrap();
        }
        mount
    }

    #[test]
    fn the_smallest_limit_of_version_2_counts() {
        let mount = hierarchy(&[
            ("memory.max", "max"),
            ("kubepods/memory.max", "4294967296"),
            ("kubepods/pod/memory.max", "536870912"),
            ("kubepods/pod/container/memory.max", "max"),
        ]);
        let groups = "0::/kubepods/pod/container\n";
        assert_eq!(smallest(groups, mount.path()), Some(512 << 20));
    }

    #[test]
    fn a_container_that_sees_its_group_as_the_root_has_its_limit() {
        let mount = hierarchy(&[("memory.max", "536870912")]);
        for groups in ["0::/\n", "0::/docker/0123\n", "0::/../..\n"] {
            assert_eq!(smallest(groups, mount.path()), Some(512 << 20), "{groups}");
        }
    }

    #[test]
    fn version_1_has_a_controller_for_memory() {
        let mount = hierarchy(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
            ("memory/service/memory.limit_in_bytes", "268435456"),
        ]);
        let groups = "12:cpu,cpuacct:/other\n4:memory:/service\n0::/unified\n";
        assert_eq!(smallest(groups, mount.path()), Some(256 << 20));
        assert_eq!(smallest("4:memory:/\n", mount.path()), None);
    }

    #[test]
    fn garbage_is_no_limit() {
        let mount = hierarchy(&[("memory.max", "-1"), ("x/memory.max", "lots")]);
        for groups in ["", "0", "0:", "::\n", "0::/x\n", "memory"] {
            assert_eq!(smallest(groups, mount.path()), None, "{groups}");
        }
    }
}
