"""What real programs do in a real image: scripts, each of which says at its end what came of it.

Each runs as ``sh -euc SCRIPT`` in a container on an image of ``PACKAGES`` and prints DONE last.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

#: Beyond what a minimal Debian has.
PACKAGES = (
    "gcc", "libc6-dev", "make", "git", "sqlite3", "rsync", "attr", "python3", "python3-pip",
    "libpython3.11-testsuite", "ca-certificates",
)  # fmt: skip
#: In Debian's release of the same name.
SUITE = "bookworm"

DPKG = """
build() {
    rm -rf /root/p; mkdir -p /root/p/DEBIAN /root/p/usr/bin /root/p/etc/tool /root/p/usr/share/tool
    printf 'Package: tool\\nVersion: %s\\nArchitecture: all\\nMaintainer: a <a@b.c>\\n' "$1" \
        > /root/p/DEBIAN/control
    printf 'Description: a tool\\n' >> /root/p/DEBIAN/control
    printf '/etc/tool/conf\\n' > /root/p/DEBIAN/conffiles
    printf '#!/bin/sh\\nset -e\\nid tool >/dev/null 2>&1 || useradd -r tool\\n' \
        > /root/p/DEBIAN/postinst
    printf 'mkdir -p /var/lib/tool\\nchown tool: /var/lib/tool\\n' >> /root/p/DEBIAN/postinst
    chmod 755 /root/p/DEBIAN/postinst
    printf '#!/bin/sh\\necho tool %s\\n' "$1" > /root/p/usr/bin/tool; chmod 755 /root/p/usr/bin/tool
    echo "version $1" > /root/p/etc/tool/conf
    for n in $(seq 200); do echo "$1 $n" > /root/p/usr/share/tool/$n; done
    ln -s tool /root/p/usr/bin/tool-link
    [ "$1" = 1 ] && touch /root/p/usr/share/tool/old-only
    dpkg-deb --build --root-owner-group /root/p /root/tool-$1.deb > /dev/null
}
build 1; build 2
dpkg -i /root/tool-1.deb; [ "$(tool-link)" = "tool 1" ]; [ -e /usr/share/tool/old-only ]
dpkg -i /root/tool-2.deb; [ "$(tool)" = "tool 2" ]; [ ! -e /usr/share/tool/old-only ]
[ "$(stat -c %U /var/lib/tool)" = tool ]
dpkg --verify tool; dpkg --audit
dpkg -r tool; [ ! -e /usr/bin/tool ]; [ -e /etc/tool/conf ]
dpkg -P tool; [ ! -e /etc/tool ]
dpkg --remove --force-depends sqlite3; [ ! -e /usr/bin/sqlite3 ]
echo DONE
"""

PIP = """
pip install --break-system-packages --no-index --quiet --root-user-action=ignore \
    /mnt/many-1.0-py3-none-any.whl
[ "$(many)" = 300 ]
python3 -m pip check > /dev/null
python3 -m venv --without-pip /srv/venv
/srv/venv/bin/python -c 'import sys; assert sys.prefix == "/srv/venv"'
pip uninstall --break-system-packages --yes --quiet --root-user-action=ignore many
! python3 -c 'import many' 2> /dev/null
echo DONE
"""

COMPILE = """
mkdir /root/c; cd /root/c
for n in $(seq 60); do echo "int f$n(int x) { return x + $n; }" > f$n.c; done
{ seq 60 | sed 's/.*/int f&(int);/'
  echo '#include <stdio.h>'
  echo 'int main(void) { int x = 0;'
  seq 60 | sed 's/.*/x = f&(x);/'
  echo 'return printf("%d", x) < 1; }'
} > main.c
cat > Makefile <<'MAKE'
OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))
sum: libsum.a main.o
	$(CC) -o $@ main.o libsum.a
libsum.a: $(filter-out main.o,$(OBJECTS))
	$(AR) rcs $@ $^
MAKE
make -s -j2; [ "$(./sum)" = 1830 ]
[ -z "$(make -q || echo stale)" ]
touch f7.c; make -s; [ "$(./sum)" = 1830 ]
make -q; echo DONE
"""

GIT = """
git config --global user.email a@b.c; git config --global user.name a
git config --global init.defaultBranch main
mkdir /srv/repo; cd /srv/repo; git init -q
cp -r /usr/include/linux lib; git add .; git commit -qm one
git checkout -qb other; for f in $(ls lib | head -20); do git mv -k lib/$f moved-$f; done
echo more > more; git add .; git commit -qm two
git checkout -q main; echo mine > mine; git add .; git commit -qm three
git merge -q --no-edit other
git gc -q --aggressive --prune=now; git fsck --strict
git clone -q /srv/repo /srv/clone; git clone -q --no-local /srv/repo /srv/far
[ "$(git -C /srv/clone rev-parse HEAD)" = "$(git rev-parse HEAD)" ]
[ -z "$(git -C /srv/far status --porcelain)" ]; git stash -q || true
diff -r /srv/clone/lib lib; git worktree add -q /srv/tree other; [ -e /srv/tree/more ]
echo DONE
"""

SQLITE = """
cd /root; sqlite3 db 'PRAGMA journal_mode=WAL; CREATE TABLE t(n INTEGER, who TEXT)' > /dev/null
work() {
    for n in $(seq 60); do
        echo "PRAGMA busy_timeout=60000; BEGIN IMMEDIATE; INSERT INTO t VALUES($n, '$1'); COMMIT;"
    done | sqlite3 db > /dev/null
}
work a & a=$!; work b & b=$!; work c & c=$!
sqlite3 -cmd '.timeout 60000' db 'SELECT count(*) FROM t' > /dev/null
wait $a; wait $b; wait $c
[ "$(sqlite3 db 'SELECT count(*), count(DISTINCT who) FROM t')" = "180|3" ]
[ "$(sqlite3 db 'PRAGMA integrity_check')" = ok ]
sqlite3 db 'PRAGMA wal_checkpoint(TRUNCATE); PRAGMA mmap_size=268435456; VACUUM' > /dev/null
[ "$(sqlite3 db 'PRAGMA journal_mode=DELETE')" = delete ]; [ ! -e db-wal ]
[ "$(sqlite3 db 'PRAGMA integrity_check')" = ok ]
echo DONE
"""

TAR = """
mkdir /srv/in; cp -a /usr/share/doc /usr/share/zoneinfo /srv/in 2> /dev/null || \
    cp -a /usr/share/doc /srv/in
setfattr -n user.note -v text /srv/in/doc; ln /srv/in/doc/git/copyright /srv/in/linked
mkfifo /srv/in/fifo; chown 12:34 /srv/in/linked; truncate -s 30M /srv/in/sparse
printf x | dd of=/srv/in/sparse bs=1 seek=20000000 conv=notrunc 2> /dev/null
tar -cS --xattrs -f /root/all.tar -C /srv/in .
mkdir /srv/out; tar -xp --xattrs --xattrs-include='*' -f /root/all.tar -C /srv/out
tar -d --xattrs -f /root/all.tar -C /srv/out
rm /srv/in/fifo /srv/out/fifo; diff -r --no-dereference /srv/in /srv/out
[ "$(getfattr --only-values -n user.note /srv/out/doc)" = text ]
[ "$(stat -c %h:%u:%g /srv/out/linked)" = 2:12:34 ]
tar -cf - /usr/lib/git-core 2> /dev/null | tar -tf - > /dev/null
rm -r /usr/share/doc; tar -xpf /root/all.tar -C /usr/share ./doc
diff -r --no-dereference /usr/share/doc /srv/in/doc
echo DONE
"""

RSYNC = """
rsync -aHAX /usr/share/ /srv/copy/
[ -z "$(rsync -aHAXnic --delete /usr/share/ /srv/copy/)" ]
echo changed >> /srv/copy/doc/git/copyright; rm -r /srv/copy/bash-completion; touch /srv/copy/new
rsync -aHAX --delete /usr/share/ /srv/copy/; [ ! -e /srv/copy/new ]
rsync -aHAX --delete --inplace --no-whole-file -c /usr/share/ /srv/copy/
[ -z "$(rsync -aHAXnic --delete /usr/share/ /srv/copy/)" ]
rsync -a --link-dest=/srv/copy /usr/share/ /srv/second/
[ "$(stat -c %h /srv/second/doc/git/copyright)" = 2 ]
rsync -a --remove-source-files /srv/second/doc/ /srv/third/; [ ! -e /srv/second/doc/git/copyright ]
echo DONE
"""

SCRIPTS = {
    "dpkg": DPKG, "pip": PIP, "compile": COMPILE, "git": GIT, "sqlite": SQLITE, "tar": TAR,
    "rsync": RSYNC,
}  # fmt: skip

#: Modules of CPython's own test suite.
SUITES = ("test_os", "test_shutil", "test_mmap", "test_tarfile")
SUITE_RUN = "cd /var/tmp && python3 -m test -v --timeout 600 $0"


def make_wheel(directory: Path) -> None:
    """Make a wheel of 300 modules and a command."""
    info = "many-1.0.dist-info"
    files = {f"many/m{number}.py": f"N = {number}\n" for number in range(300)}
    files["many/__init__.py"] = (
        "import importlib\n\n\ndef main():\n"
        "    print(len({importlib.import_module(f'many.m{n}').N for n in range(300)}))\n"
    )
    files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: many\nVersion: 1.0\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = "[console_scripts]\nmany = many:main\n"
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(directory / "many-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", record)
