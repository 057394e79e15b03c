#!/bin/sh
# Installs what the slow tests need beside Python: Chromium for the status page, Prometheus for the metrics, curl for
# the README.
# Where they are there already nothing is done; otherwise it takes apt-get, as root or through sudo.
set -eu

missing=""
for package in chromium prometheus curl; do
  command -v "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "install by hand, for the slow tests:$missing" >&2
  exit 1
fi
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update
# shellcheck disable=SC2086 # a list of names
$as_root apt-get install --yes --no-install-recommends $missing
