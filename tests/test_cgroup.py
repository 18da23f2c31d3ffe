import pytest

from mhsvm import system
from mhsvm.cgroup import cpu_quota
from mhsvm.system import num_cores

V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "34 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct"


@pytest.fixture
def tree(tmp_path):
    """A function that writes a control group's files below a root, and returns the quota read there."""

    def read(mounts, groups, files):
        for name, text in {"proc/self/mountinfo": mounts, "proc/self/cgroup": groups, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return cpu_quota(tmp_path)

    return read


@pytest.mark.parametrize(
    ("limit", "quota"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("max 100000", None),
        ("max", None),
        ("", None),
        ("12 0", None),
    ],
)
def test_version_2(tree, limit, quota):
    assert tree(V2, "0::/", {"sys/fs/cgroup/cpu.max": limit}) == quota


@pytest.mark.parametrize(
    ("limit", "period", "quota"), [("200000", "100000", 2), ("25000", "10000", 3), ("-1", "100000", None)]
)
@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_version_1(tree, limit, period, quota, folder):
    at = f"sys/fs/cgroup/{folder}/job"
    groups = "4:cpu,cpuacct:/job\n3:cpuset:/other\n1:name=systemd:/init.scope"
    files = {f"{at}/cpu.cfs_quota_us": limit, f"{at}/cpu.cfs_period_us": period}
    assert tree(V1.replace("cgroup/cpu,cpuacct", f"cgroup/{folder}"), groups, files) == quota


def test_the_smallest_quota_of_all_groups_counts(tree):
    base = "sys/fs/cgroup"
    files = {
        f"{base}/cpu.max": "max 100000",
        f"{base}/slurm/cpu.max": "300000 100000",
        f"{base}/slurm/job_7/cpu.max": "max 100000",
        f"{base}/slurm/job_7/step_0/cpu.max": "800000 100000",
        f"{base}/other/cpu.max": "100000 100000",
    }
    assert tree(V2, "0::/slurm/job_7/step_0", files) == 3


def test_a_container_that_sees_its_own_group_as_the_top(tree):
    """Version 1 without a namespace: the path is the one outside, and the mount starts at the container's group."""
    mounts = V1.replace(" / /sys", " /docker/f00 /sys")
    files = {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000"}
    files["sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us"] = "100000"
    assert tree(mounts, "4:cpu,cpuacct:/docker/f00", files) == 4
    # mounted by hand, with another path
    assert tree(mounts, "4:cpu,cpuacct:/kubepods/pod1/f00", files) == 4


def test_both_versions_at_once(tree):
    mounts = f"{V1}\n{V2.replace('/sys/fs/cgroup rw', '/sys/fs/cgroup/unified rw')}"
    files = {
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "500000",
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/unified/user/memory.max": "max",
    }
    assert tree(mounts, "4:cpu,cpuacct:/job\n0::/user", files) == 5


@pytest.mark.parametrize("groups", ["", "garbage", "0::/../../outside", "0::/gone"])
def test_without_a_group_that_can_be_read(tree, groups):
    assert tree(f"{V2}\nshort line\n\n", groups, {}) is None


def test_without_proc(tmp_path):
    assert cpu_quota(tmp_path) is None


def test_cores_are_those_of_the_mask_within_the_quota(monkeypatch):
    monkeypatch.setattr(system.os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    for quota, cores in [(None, 6), (2, 2), (64, 6)]:
        monkeypatch.setattr(system, "cpu_quota", lambda quota=quota: quota)
        assert num_cores() == cores
