import { cases } from './cases/shape.js'
import { checkCases } from './check.js'

checkCases(cases)
