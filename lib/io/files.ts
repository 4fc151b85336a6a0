/** The only way in which steepest writes files: as a whole or not at all, with one clear sentence where it fails. */
export {
  atomicFolder,
  atomicWriteFile,
  type Chunks,
  cleanLeftovers,
  type Digest,
  type FolderWriter,
  removeFolder,
} from './atomic.js'
export {
  errorCode,
  fileError,
  type FileInfo,
  type FileSystem,
  nodeFileSystem,
  type OpenFile,
  type OpenMode,
} from './filesystem.js'
