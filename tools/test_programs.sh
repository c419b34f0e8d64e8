#!/usr/bin/env bash
# The programs that some tests drive. On Debian as root the missing ones are installed; elsewhere
# the tests that need one skip and say so.
set -euo pipefail

missing=()
command -v chromium >/dev/null || missing+=(chromium fonts-liberation)
command -v redis-server >/dev/null || missing+=(redis-server)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null ||
	missing+=(postgresql)
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "Not installed here: ${missing[*]}. The tests that drive them will skip." >&2
	exit 0
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
	>/dev/null </dev/null; then
	echo "apt-get could not install ${missing[*]}. The tests that drive them will skip." >&2
fi
