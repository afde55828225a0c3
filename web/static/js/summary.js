// The summary follows the shop.
import { keepFresh } from "./fresh.js";

keepFresh(() => true);
