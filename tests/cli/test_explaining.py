"""Why a member was replaced, asked of the real command."""

from pathlib import Path

from tests.cli.shell import TRAIN, Shell, write


def test_the_command(shell: Shell, tmp_path: Path) -> None:
    script = TRAIN.replace("nni.report_final", "if p['lr'] > 0.4: sys.exit(1)\nnni.report_final")
    config = write(tmp_path, script, population=8, steps=4, workers=4, retries=0, seed=1)
    assert shell("run", config).returncode == 0
    rows = shell.json("trials")
    said = ""
    for row in rows:
        if row["step"] in {0, 1, 3} and row["member"] < 4:
            at = ["--member", row["member"], "--step", row["step"]]
            said += shell("explain", *at).stdout
            if row["member"] < 1:
                answer = shell.json("explain", *at)
                assert answer["trial"] == row["id"]
                assert answer["decided_so_today"] is True
    for text in (
        "it is its first step", "and only the last 2 copy", "of 8 at step 0",
        "drawn from the first 2",
        "explored", "→", "this one",
    ):  # fmt: skip
        assert text in said, text
    refused = shell("explain", "--member", 9, "--step", 1)
    assert refused.returncode == 2
    assert "there is no member 9" in refused.stderr
