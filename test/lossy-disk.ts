import { fstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * What a power cut would leave of files that are written while this watches, on a disk that loses everything that it may: a
 * file has the content of its last sync, a directory the names of its last sync. Linux only.
 */
export class LossyDisk {
  /** By inode. */
  readonly #contents = new Map<number, Buffer>();
  readonly #names = new Map<number, ReadonlyMap<string, number>>();

  private constructor(private readonly unwatch: () => void) {}

  static async watch(): Promise<LossyDisk> {
    const handle = await open('/', 'r');
    const prototype = Object.getPrototypeOf(handle) as FileHandle;
    await handle.close();
    const { sync } = prototype;
    const disk = new LossyDisk(() => {
      prototype.sync = sync;
    });
    prototype.sync = async function (this: FileHandle) {
      await sync.call(this);
      disk.#synced(this.fd);
    };
    return disk;
  }

  #synced(fd: number): void {
    const status = fstatSync(fd);
    const path = readlinkSync(`/proc/self/fd/${fd}`);
    if (!status.isDirectory()) this.#contents.set(status.ino, readFileSync(path));
    else this.#names.set(status.ino, new Map(readdirSync(path).map((name) => [name, statSync(join(path, name)).ino])));
  }

  /** Makes `copy` what would be left of `directory`; what was never synced is empty. */
  leave(directory: string, copy: string): void {
    this.#leave(statSync(directory).ino, copy);
  }

  #leave(inode: number, copy: string): void {
    mkdirSync(copy);
    for (const [name, ino] of this.#names.get(inode) ?? []) {
      if (this.#names.has(ino)) this.#leave(ino, join(copy, name));
      else writeFileSync(join(copy, name), this.#contents.get(ino) ?? '');
    }
  }

  [Symbol.dispose](): void {
    this.unwatch();
  }
}
