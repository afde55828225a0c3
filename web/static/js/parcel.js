// One parcel's page needs no script; with one, a photo goes as soon as it is taken.
import { sendsItself } from "./photo.js";

const form = document.getElementById("photo-form");
if (form) sendsItself(form);
