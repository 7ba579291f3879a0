#!/bin/sh
# What a user installs: the tarball with its prebuild, in an empty folder, with no compiler on the PATH. Then the same
# tarball without a prebuild that fits, which must say so in a typed error.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm run --silent prebuilds
npm pack --ignore-scripts --silent --pack-destination "$work" >/dev/null
tar -tzf "$work"/lutra-*.tgz >"$work/content"
for unwanted in binding.gyp CMakeLists.txt native/ test/ bench/ build/; do
  if grep -q "^package/$unwanted" "$work/content"; then
    echo "package: $unwanted must not be in the tarball" >&2
    exit 1
  fi
done
grep -q "^package/prebuilds/.*\.node$" "$work/content"

mkdir "$work/tools" "$work/user"
for tool in node npm sh env; do ln -s "$(command -v $tool)" "$work/tools/$tool"; done
cd "$work/user"
echo '{ "private": true, "type": "module" }' >package.json
PATH="$work/tools" npm install --silent --no-audit --no-fund "$work"/lutra-*.tgz
cp "$root/test/package-smoke.mjs" "$root/test/package-smoke.cjs" .
PATH="$work/tools" node package-smoke.mjs
PATH="$work/tools" node package-smoke.cjs
PATH="$work/tools" ./node_modules/.bin/lutra doctor >/dev/null
rm -rf node_modules/lutra/prebuilds
PATH="$work/tools" node package-smoke.mjs --no-binary
echo "package: 4 passed, 0 failed, 0 skipped"
