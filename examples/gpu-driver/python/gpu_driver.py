"""A vendor's check: the GPU driver is loaded and new enough for the product. The Rust version is in ../src.

How to build and run it is in ../../README.md.
"""

from wit_world import exports
from wit_world.exports.check import CheckInfo, Finding, Report, Severity, Stage
from wit_world.imports import facts, files

# First driver branch that the product supports.
OLDEST_BRANCH = 550


class Check(exports.Check):
    def list_checks(self) -> list[CheckInfo]:
        title = "NVIDIA driver is loaded and new enough"
        return [CheckInfo("GpuDriver", title, Stage.NODE, Severity.ERROR)]

    # An error of the host is raised as `Err`, and passes through as this function's own.
    def run_check(self, id: str) -> Report:
        if "nvidia" not in facts.modules():
            return report("the kernel module nvidia is not loaded", None)
        found = version(files.read("/proc/driver/nvidia/version").decode(errors="replace"))
        return report(judge(found), found)


def version(content: str) -> str | None:
    """`NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue …` has the version as its first dotted number."""
    words = content.partition("\n")[0].split()
    return next((word for word in words if "." in word and word.replace(".", "").isdigit()), None)


def judge(found: str | None) -> str | None:
    """What is wrong with a version, if anything."""
    if found is None:
        return "the driver does not tell its version"
    branch = found.partition(".")[0]
    if int(branch or 0) < OLDEST_BRANCH:
        return f"driver {found} is older than branch {OLDEST_BRANCH}"
    return None


def report(problem: str | None, found: str | None) -> Report:
    remedy = f"install an NVIDIA driver of branch {OLDEST_BRANCH} or newer"
    findings = [Finding(Severity.ERROR, problem, [], remedy, [])] if problem else []
    return Report(None, findings, [("driver", found)] if found else [], [])
